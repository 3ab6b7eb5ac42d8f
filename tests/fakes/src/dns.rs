//! A DNS server that has one address for every name.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

const TTL: u32 = 5;

/// Starts to answer, over UDP and TCP: A questions with the address, all others with nothing.
pub async fn serve(at: SocketAddr, address: Ipv4Addr) -> anyhow::Result<()> {
    let udp = Arc::new(UdpSocket::bind(at).await.with_context(|| format!("listening on UDP {at}"))?);
    let tcp = TcpListener::bind(at).await.with_context(|| format!("listening on TCP {at}"))?;
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let Ok((length, peer)) = udp.recv_from(&mut buffer).await else { continue };
            if let Some(answer) = answer(&buffer[..length], address) {
                let _ = udp.send_to(&answer, peer).await;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = tcp.accept().await else { continue };
            tokio::spawn(serve_stream(stream, address));
        }
    });
    Ok(())
}

async fn serve_stream(mut stream: TcpStream, address: Ipv4Addr) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut question).await?;
        let Some(answer) = answer(&question, address) else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

fn answer(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok().filter(|message| message.message_type() == MessageType::Query)?;
    let mut answer = Message::new();
    answer
        .set_id(question.id())
        .set_message_type(MessageType::Response)
        .set_op_code(question.op_code())
        .set_recursion_desired(question.recursion_desired())
        .set_recursion_available(true)
        .add_queries(question.queries().to_vec());
    if question.op_code() != OpCode::Query {
        answer.set_response_code(ResponseCode::NotImp);
        return answer.to_vec().ok();
    }
    for query in question.queries() {
        if query.query_type() == RecordType::A {
            answer.add_answer(Record::from_rdata(query.name().clone(), TTL, RData::A(A(address))));
        }
    }
    answer.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::{op::Query, rr::Name};

    use super::*;

    #[test]
    fn every_name_has_one_address_and_nothing_else() {
        for (kind, answers) in [(RecordType::A, 1), (RecordType::AAAA, 0), (RecordType::TXT, 0)] {
            let mut question = Message::new();
            question.set_id(7).add_query(Query::query(Name::from_ascii("a.example.").unwrap(), kind));
            let bytes = answer(&question.to_vec().unwrap(), Ipv4Addr::new(127, 77, 0, 1)).unwrap();
            let message = Message::from_vec(&bytes).unwrap();
            assert_eq!((message.id(), message.response_code()), (7, ResponseCode::NoError));
            assert_eq!(message.answers().len(), answers);
        }
        assert!(answer(b"nonsense", Ipv4Addr::LOCALHOST).is_none());
    }
}
